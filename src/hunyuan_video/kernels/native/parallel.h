// Work in the threads of PyTorch's own OpenMP, which a library compiled here must not have a second one of.
#pragma once
#include <atomic>
#include <cstdint>

using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);  // OpenMP's GOMP_parallel: calls a function in so many threads

// Calls body(thread, item) for each item; a thread that is done takes the next one. While it works it has an object of class Thread.
template <class Thread, class Body>
void in_parallel(Parallel parallel, int32_t threads, int64_t items, Body body) {
    struct Work {
        int64_t items;
        Body& body;
        std::atomic<int64_t> threads{0}, next{0};
    } work{items, body};
    auto run = [](void* data) {
        auto& work = *static_cast<Work*>(data);
        [[maybe_unused]] Thread working;
        const int64_t thread = work.threads++;
        for (int64_t item; (item = work.next++) < work.items;) work.body(thread, item);
    };
    if (threads > 1)
        parallel(run, &work, unsigned(threads), 0);
    else
        run(&work);
}
