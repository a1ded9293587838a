from quart import Quart
from stores import make_auth

from lucia.middleware.quart import QuartAuth, current_user, login_required

app = Quart(__name__)
web = QuartAuth(make_auth(), forbid_cross_site=True, login_view="auth.log_in_page")
web.init_app(app)
app.register_blueprint(web.blueprint(url_prefix="/auth"))


@app.get("/")
@login_required
async def home() -> str:
    user = await current_user
    return f"Hello {user.user_id}"
