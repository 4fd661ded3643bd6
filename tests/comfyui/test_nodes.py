"""Nodes of the pack, run by an executor that is not ours, with the embedded miniature."""

def test_a(comfy):
    print(comfy.runtime.list_nodes())
    model = comfy.run("HunyuanVideoLoad", weights="embedded miniature")
    request, _ = comfy.run("HunyuanVideoPrompt", prompt="A dog runs in the snow")
    latent, record = comfy.run("HunyuanVideoSample", model=model, request=request, width=64, height=64, num_frames=5, num_steps=2)
    print(latent["samples"].shape)
    images, video, record = comfy.run("HunyuanVideoDecode", model=model, latent=latent, record=record)
    path = comfy.run("HunyuanVideoSave", images=video, record=record)
    print(path)
