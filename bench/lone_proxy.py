"""One proxy without its manager: `python -m bench.lone_proxy`, set by C2L_PROXY_… in the environment."""

from cloudtolocalllm.proxy.service import main
from cloudtolocalllm.proxy.settings import PREFIX, ProxySettings
from cloudtolocalllm.runtime.settings import environment, load

if __name__ == "__main__":
    main(load(ProxySettings, PREFIX, environment()))
