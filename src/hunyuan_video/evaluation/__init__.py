"""What clips are worth: studies of several systems, what is measured of their clips, and what a faster way to make one costs. Knows no
drawn world."""
