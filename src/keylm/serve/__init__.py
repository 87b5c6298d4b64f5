"""Chat with a released model: in the terminal, over HTTP, on a web page."""
