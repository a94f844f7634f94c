"""Homework: what a student's notebook imports, and the pipeline that makes and grades them.

A student needs `checker` alone, and nothing that the chapters do not need. The pipeline
(`python -m companion.homework`) is the instructor's; it needs the extra `homework`.
"""

from companion.homework.asking import Check, Unanswered, Wrong, checker

__all__ = ["Check", "Unanswered", "Wrong", "checker"]
