"""One small module for each web framework: a request comes in as a :class:`lucia.RequestContext`, cookies go out."""
