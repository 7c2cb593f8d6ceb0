"""How sure a result is, and what may be said of it: from per-sample values to verdicts and sentences.

Pure numpy and scipy: nothing here knows rows, tasks or files.
"""
