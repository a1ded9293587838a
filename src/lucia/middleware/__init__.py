"""Integrations of web frameworks, a module for each.

An integration turns a request into a :class:`lucia.RequestContext`, and puts the cookies on the
response.
"""
