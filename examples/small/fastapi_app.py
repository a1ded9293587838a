from typing import Annotated

from fastapi import Depends, FastAPI
from stores import make_auth

from lucia import User
from lucia.middleware.fastapi import FastAPIAuth

app = FastAPI()
web = FastAPIAuth(make_auth(), forbid_cross_site=True, login_url="/auth/login")
web.install(app)
app.include_router(web.router(prefix="/auth"))


@app.get("/")
async def home(user: Annotated[User, Depends(web.user)]) -> str:
    return f"Hello {user.user_id}"
