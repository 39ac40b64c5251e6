"""The segmenter: a vision-language model and SAM 2, joined by `[SEG]`."""

from deixis.models.sa2va.bundle import Sa2vaBundle, init_sa2va
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.templates import NEW_TOKENS, SEG, TEMPLATES, Template

__all__ = ["NEW_TOKENS", "SEG", "TEMPLATES", "Sa2va", "Sa2vaBundle", "Template", "init_sa2va"]
