"""Many processes as one: their world, what the first of them does for all, one video's tokens and one model's weights spread over them."""
