"""A web application with accounts and logins that shows what each action does in Redis."""
