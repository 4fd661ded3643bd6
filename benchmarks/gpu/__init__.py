"""What a GPU does with this project, part by part: `benchmarks/gpu.sh` runs each as a process of its own."""
