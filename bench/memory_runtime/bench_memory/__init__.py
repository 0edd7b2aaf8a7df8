"""A runtime that holds its workloads in memory: for figures about records, where no process is wanted."""
