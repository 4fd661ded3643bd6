"""Videos by a queue: an API in front of a database of jobs, and workers behind it. What makes a video is a function
that a worker is given."""
