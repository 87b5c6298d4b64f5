"""Chat with an exported model: in the terminal, over HTTP, on a web page."""
