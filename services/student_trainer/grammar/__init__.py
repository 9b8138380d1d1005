"""A story grammar of our own: the corpus that needs no file. See docs/grammar.md."""

from services.student_trainer.grammar.mixture import KINDS, Document, generate_documents

__all__ = ["KINDS", "Document", "generate_documents"]
