"""Servers that speak the wire formats of TGI, vLLM, SGLang, llama.cpp, Ollama and OpenAI's chat API, for tests.

All stand on one engine: a tiny Llama that really tokenises, applies its chat template, computes the next token's
log-probabilities and samples with a seed. What a product refuses, a server here refuses; what it ignores, it ignores.
"""
