"""A page that makes videos by the queue: what it shows is what the store says, so it loses nothing when it is closed or reloaded."""
