"""The experiment of docs/protocol.md: its protocol as data, and its runs on a CPU or in parallel on a GPU."""
