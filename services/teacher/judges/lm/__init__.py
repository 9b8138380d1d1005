"""The language-model judge in parts: the prompt, its tokens, the forward pass, loading."""
