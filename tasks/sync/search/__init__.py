"""Full-text search: words of new messages, indexed after they are stored, and the finding of them.

::

    COMMIT { messages, one row of the backlog for each 50 } ──tick──> claimed ──> COMMIT { words, row gone }
                                                                         └─ died: due again a minute later

What is announced is due at once; history a minute later, so that a first sync has the machine to itself.
"""

from tasks.sync.search.find import Sought, search_messages
from tasks.sync.search.index import forget, index_due, note

__all__ = ["Sought", "forget", "index_due", "note", "search_messages"]
