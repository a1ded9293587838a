from flask import Flask
from flask_stores import make_auth

from lucia.middleware.flask import FlaskAuth, current_user, login_required

app = Flask(__name__)
web = FlaskAuth(make_auth(), forbid_cross_site=True, login_view="auth.log_in_page")
web.init_app(app)
app.register_blueprint(web.blueprint(url_prefix="/auth"))


@app.get("/")
@login_required
def home() -> str:
    return f"Hello {current_user.user_id}"
