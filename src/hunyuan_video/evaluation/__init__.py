"""What a faster way to make a video costs: how far it is from the exact one, and what it computed. Knows no drawn world."""
