"""samref.errors: what is told to a person is one line, and holds no secret."""

import pytest

from samref.errors import UserError, masked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql://ann:pa55@db:5432/mlflow", "postgresql://ann:***@db:5432/mlflow"),
        ("redis://:pa55@db", "redis://:***@db"),
        ("'mysql+pymysql://ann:p@ss/wo:rd@db/x' is wrong", "'mysql+pymysql://ann:***@db/x' is wrong"),
        ("https://ghp_x1@host/repo", "https://***@host/repo"),
        ("s3://b?region=eu&secret_key=x&access_key=y&scheme=http", "s3://b?region=eu&secret_key=***&access_key=***&scheme=http"),
        ('["https://h/?X-Amz-Signature=abc&Token=d"]', '["https://h/?X-Amz-Signature=***&Token=***"]'),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("folder:polyps?split=0.8&seed=1 at ann@host.org", "folder:polyps?split=0.8&seed=1 at ann@host.org"),
        ("sqlite:////home/ann/mlflow.db?timeout=30", "sqlite:////home/ann/mlflow.db?timeout=30"),
    ],
)  # fmt: skip
def test_secrets_of_uris_are_masked_wherever_they_stand(text: str, said: str) -> None:
    assert masked(text) == said
    assert str(UserError(text)) == said
    assert masked(said) == said
