"""Names of the options that only llama-server has, and of their environment variables.

minillama has no server yet.
"""

_TABLE = """
-lcs --lookup-cache-static
-lcd --lookup-cache-dynamic
--kv-unified-per-slot LLAMA_ARG_KV_UNIFIED_PER_SLOT
-cms --checkpoint-min-step LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT
--cache-idle-slots --no-cache-idle-slots LLAMA_ARG_CACHE_IDLE_SLOTS
--spm-infill
--pooling LLAMA_ARG_POOLING
--mtmd-batch-max-tokens LLAMA_ARG_MTMD_BATCH_MAX_TOKENS
-a --alias LLAMA_ARG_ALIAS
--tags LLAMA_ARG_TAGS
--embd-normalize
--host LLAMA_ARG_HOST
--port LLAMA_ARG_PORT
--reuse-port LLAMA_ARG_REUSE_PORT
--path LLAMA_ARG_STATIC_PATH
--cors-origins LLAMA_ARG_CORS_ORIGINS
--cors-methods LLAMA_ARG_CORS_METHODS
--cors-headers LLAMA_ARG_CORS_HEADERS
--cors-credentials --no-cors-credentials LLAMA_ARG_CORS_CREDENTIALS
--api-prefix LLAMA_ARG_API_PREFIX
--ui-config --webui-config LLAMA_ARG_UI_CONFIG
--ui-config-file --webui-config-file LLAMA_ARG_UI_CONFIG_FILE
--ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy LLAMA_ARG_UI_MCP_PROXY
--tools LLAMA_ARG_TOOLS
--tools-runtime LLAMA_ARG_TOOLS_RUNTIME
--mcp-servers-config LLAMA_ARG_MCP_SERVERS_CONFIG
--mcp-servers-json LLAMA_ARG_MCP_SERVERS_JSON
-ag --agent -no-ag --no-agent LLAMA_ARG_AGENT
--ui --webui --no-ui --no-webui LLAMA_ARG_UI
--embedding --embeddings LLAMA_ARG_EMBEDDINGS
--rerank --reranking LLAMA_ARG_RERANKING
--api-key LLAMA_API_KEY
--api-key-file LLAMA_ARG_API_KEY_FILE
--ssl-key-file LLAMA_ARG_SSL_KEY_FILE
--ssl-cert-file LLAMA_ARG_SSL_CERT_FILE
-to --timeout LLAMA_ARG_TIMEOUT
--sse-ping-interval LLAMA_ARG_SSE_PING_INTERVAL
--threads-http LLAMA_ARG_THREADS_HTTP
--cache-prompt --no-cache-prompt LLAMA_ARG_CACHE_PROMPT
--cache-reuse LLAMA_ARG_CACHE_REUSE
--metrics LLAMA_ARG_ENDPOINT_METRICS
--props LLAMA_ARG_ENDPOINT_PROPS
--slots --no-slots LLAMA_ARG_ENDPOINT_SLOTS
--slot-save-path
--media-path
--models-dir LLAMA_ARG_MODELS_DIR
--models-preset LLAMA_ARG_MODELS_PRESET
--models-max LLAMA_ARG_MODELS_MAX
--models-autoload --no-models-autoload LLAMA_ARG_MODELS_AUTOLOAD
--prefill-assistant --no-prefill-assistant LLAMA_ARG_PREFILL_ASSISTANT
-sps --slot-prompt-similarity
--lora-init-without-apply
--sleep-idle-seconds
--spec-ngram-size-n
--spec-ngram-size-m
--spec-ngram-min-hits
--embd-gemma-default
--fim-qwen-1.5b-default
--fim-qwen-3b-default
--fim-qwen-7b-default
--fim-qwen-7b-spec
--fim-qwen-14b-spec
--fim-qwen-30b-default
"""

SERVER_OPTIONS = frozenset(_TABLE.split())
