"""The shipped application, importable under a name that no user's project has.

``workflows``, ``activities`` and ``worker.py`` at the top of the repository are what every Temporal
application calls its own folders. Inside this package they are links to them, so that the
installed command works in a directory that has its own ``workflows``.
"""
