"""The user ids of the conformance suites."""

__all__ = ["SampleUsers"]


class SampleUsers:
    """The ids of the users in a suite's tests, which an adapter's own suite may translate."""

    def user_id(self, name: str) -> str:
        """Return the user id that stands for a name; by default the name itself.

        Override it for a store whose user ids are not any text, such as numbers. It returns one id
        for each name, always the same, and different ones for different names. The id ``unknown``
        is not translated: for such a store it is no user's, like any text that is no id.
        """
        return name

    @property
    def anna(self) -> str:
        """The id of the user anna."""
        return self.user_id("user-anna")

    @property
    def bert(self) -> str:
        """The id of the user bert."""
        return self.user_id("user-bert")
