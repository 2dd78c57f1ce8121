"""A Flask application whose tasks run with its application context.

flask --app shop run
celery -A shop worker -l info
"""

from celery import Celery, Task, shared_task
from celery.result import AsyncResult
from flask import Flask, current_app, request


def celery_init_app(app: Flask) -> Celery:
    """Make the app of tasks of a Flask application; each task runs with the application's context."""

    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


def create_app() -> Flask:
    """Make the Flask application."""
    app = Flask(__name__)
    app.config.from_mapping(GREETING="Hello", CELERY={"task_ignore_result": True})
    app.config.from_prefixed_env()  # FLASK_GREETING="Good morning"
    celery_init_app(app)

    @app.post("/greetings")
    def begin() -> tuple[dict[str, object], int]:
        result = greet.delay(request.form["name"])
        return {"result_id": result.id}, 202

    @app.get("/greetings/<id>")
    def look(id: str) -> dict[str, object]:
        result = AsyncResult(id)
        ready = result.ready()
        return {"ready": ready, "value": result.result if ready else None}

    return app


@shared_task(ignore_result=False)
def greet(name: str) -> str:
    """Use what the Flask application is configured with."""
    return f"{current_app.config['GREETING']}, {name}!"


flask_app = create_app()
celery_app = flask_app.extensions["celery"]
