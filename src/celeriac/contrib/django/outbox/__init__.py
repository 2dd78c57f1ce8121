"""Django app: calls that are sent on commit are written into the project's database, with the transaction.

A process may die, or the broker be away, after the commit and before the call is sent. With this app among
``INSTALLED_APPS``, and migrated, nothing is lost then: ``delay_on_commit`` writes the message into a table
within the transaction; what is not sent right after the commit is sent by the project's workers, or by
``manage.py celeriac_outbox``.
"""
