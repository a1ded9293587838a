from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from stores import make_auth

from lucia.middleware.starlette import StarletteAuth

web = StarletteAuth(make_auth(), forbid_cross_site=True, login_url="/auth/login")


async def home(request: Request) -> PlainTextResponse:
    user = await web.user(request)
    return PlainTextResponse(f"Hello {user.user_id}")


app = Starlette(routes=[Route("/", home), *web.routes(prefix="/auth")])
web.install(app)
