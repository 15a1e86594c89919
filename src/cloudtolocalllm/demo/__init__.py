"""The scripted demo engine: speaks Ollama's and OpenAI's API over real HTTP and is plainly labelled as no model."""
