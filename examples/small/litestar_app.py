from litestar import Litestar, get
from litestar.di import NamedDependency
from stores import make_auth

from lucia import User
from lucia.middleware.litestar import LitestarAuth

web = LitestarAuth(make_auth(), forbid_cross_site=True, login_url="/auth/login", exclude="^/schema")


@get("/")
async def home(current_user: NamedDependency[User]) -> str:
    return f"Hello {current_user.user_id}"


app = Litestar([home, web.router("/auth")], plugins=[web])
