"""What computes attention faster, and the choice among it, measured where it runs."""
