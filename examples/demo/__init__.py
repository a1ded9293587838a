"""A web application that shows the library at work: accounts, logins on several browsers, and what each action does in Redis."""
