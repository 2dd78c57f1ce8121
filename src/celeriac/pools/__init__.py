"""Where jobs run: processes, threads, or the main thread itself."""
