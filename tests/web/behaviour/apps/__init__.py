"""The same application in every framework, each run by a real server.

Besides the ready routes at ``/auth``, each has these routes:

===================== ==========================================================================
``GET /who``          ``{"user_id": …, "pid": …}``, for a visitor with None
``GET /private``      the same, for people who are logged in; a browser is sent to ``/auth/login``
``GET /unused``       does not ask who it is
``GET /crash``        asks, and raises an error that nobody handles
``GET /gone``         asks, and raises the framework's 404
``GET /redirect``     asks, and redirects to ``/who``
``GET /stream``       asks, and streams ``0`` to ``999``
``GET /own-headers``  asks, and sets the cookie ``theme``, Vary and Cache-Control
``GET /slow``         asks, and responds after 0.2 seconds
``POST /crash``       logs ``ann`` in, and raises an error that nobody handles
===================== ==========================================================================
"""
