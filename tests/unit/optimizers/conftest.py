import pytest

from tests import versions


@pytest.fixture(params=versions.VERSIONS, ids=lambda version: version.name)
def version(request):
    return request.param


@pytest.fixture(params=versions.METHODS)
def method(request):
    return request.param
