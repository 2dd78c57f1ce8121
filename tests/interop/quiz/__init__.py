"""Questions about Celery's behaviour that real Celery and ours have to answer alike.

A question is a function; what it returns, or that it raises, is the answer. Nothing in here depends on whose
`celery` it imports. ``python -m quiz tasks results`` answers what the modules of these names ask, as JSON.
"""
