"""Generated instructions whose answers a program can check."""
