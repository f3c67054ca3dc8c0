# Made by bentotool; a change is lost when it is made again.
# iris:1 for linux/amd64
FROM cgr.dev/chainguard/wolfi-base:latest AS system
USER 0:0
ENV PORT="3000"

# Python 3.11
RUN --mount=type=cache,target=/var/cache/bentotool/system,id=bentotool-system,sharing=locked --mount=type=secret,id=bentotool-ca ["/bin/sh", "-c", <INSTALL>, "bentotool", "python-3.11"]

# step 1 of 1 before the Python packages
RUN --mount=type=cache,target=/var/cache/bentotool/system,id=bentotool-system,sharing=locked --mount=type=secret,id=bentotool-ca ["/bin/sh", "-c", <INSTALL>, "bentotool", "libgomp1"]

FROM system AS packages

# the Python packages of bento.lock
RUN --mount=type=cache,target=/var/cache/bentotool/uv,id=bentotool-uv,sharing=shared --mount=type=secret,id=bentotool-ca --mount=type=secret,id=bentotool-index --mount=type=secret,id=bentotool-netrc --mount=type=secret,id=bentotool-uv --mount=type=bind,source=packages,target=/opt/bentotool/packages ["/bin/sh", "-c", <ENVIRONMENT>, "bentotool", "3.11", "/opt/bentotool/env", "0.9.0", "", "", "--no-deps", "--only-binary", ":all:"]

FROM system AS environment
COPY --link --from=packages ["/opt/bentotool/env", "/opt/bentotool/env"]

FROM environment AS image
COPY --link ["bento/opt/bentotool/runtime/", "/opt/bentotool/env/lib/python3.11/site-packages/"]
COPY --link ["bento/models/iris/", "/models/iris/"]
COPY --link ["bento/home/bento/", "/home/bento/"]
ENV PATH="/opt/bentotool/env/bin:$PATH"
LABEL "team"="flowers"
WORKDIR /home/bento/app
EXPOSE 3000/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/opt/bentotool/env/bin/python", "-m", "bentotool.runtime.healthcheck"]
USER 65532:65532
ENTRYPOINT ["/opt/bentotool/env/bin/python", "-m", "bentotool.runtime", "/home/bento"]
