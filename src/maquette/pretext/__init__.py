"""What a network can learn from pieces alone: one file a task, each a start for other runs and an embedder."""
