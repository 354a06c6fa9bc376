"""The experiment of docs/protocol.md: its protocol as data, and its runs on a CPU or side by side on a GPU."""
