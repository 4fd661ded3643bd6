def rewrite(prompt, mode):
    return prompt, None
