"""The tiers of the suite: quick tests of every run, slow ones of CI, full products of the nightly run.

Most tests are quick. A rule here takes cases of a parametrised test out of the quick run: `pytest` tests every kind of
thing once, `pytest -m slow` pairs of them, and `pytest -m nightly` the other combinations.
"""

import re
from dataclasses import dataclass
from functools import cache

import pytest


@dataclass(frozen=True)
class Rule:
    """Patterns (re.fullmatch) of a test's cases; a case that fits neither is nightly. No case: one name, ""."""

    test: str  # pattern of the beginning of the node's id, below tests/
    quick: str = "(?!)"  # nothing
    slow: str = "(?!)"


# tiny variants with each kind of layer: windows, sinks, latents, shared caches, memories, and their experts
KINDS_OF_LAYERS = "gpt-oss|deepseek2|deepseek2-2024|gemma4|qwen35moe|granitehybrid|lfm2moe"
ONE_OF_EACH_STATE = "gpt-oss|gemma4-e2b|deepseek2-v3|qwen35moe|granitehybrid|lfm2moe"
LOW_BITS = "(NVFP4|TQ|IQ1_|IQ2_|IQ3_)"  # the types that are only read

RULES = (
    # families: one of each feature (rope style, fused tensors, head norms, post norms, window, experts, factors)
    Rule("model/test_forward.py::TestEveryVariant::test_forward_is_the_formulas",
         "llama3|chatglm|gemma2|glm4moe|gpt-oss", ".*"),
    Rule("model/test_forward.py::TestEveryVariant::test_rounded_caches", "llama3|gemma2",
         f"qwen3|gemma3|{KINDS_OF_LAYERS}"),
    Rule("model/test_forward.py::TestEveryVariant::test_rows_of_a_batch", "llama3|qwen2moe",
         f"gemma3|{KINDS_OF_LAYERS}"),
    Rule("model/test_forward.py::TestEveryVariant", "llama3|qwen2moe|gemma2", ".*"),
    Rule("model/test_forward.py::TestAgainstLlamaCpp::test_architecture", "llama3|qwen2moe|phi3-longrope", ".*"),
    Rule("model/test_low_bit_models.py::test_logits",
         slow="(IQ1_M|IQ2_M|IQ3_XS|TQ1_0|NVFP4)-kernels|(IQ2_M|NVFP4)-xla"),
    Rule("model/test_low_bit_models.py::test_scales", slow=".*"),
    Rule("model/test_families.py::test_whole", "glm4moe|mistral3|olmo3", ".*"),
    Rule("model/test_families.py::test_after_another_text", slow=ONE_OF_EACH_STATE),
    Rule("model/test_families.py::test_in_chunks", "cohere2",
         f"{ONE_OF_EACH_STATE}|glm4moe|nemotron-h|deepseek2-lite|olmo3"),
    Rule("model/test_families.py::test_going_back_on_two_devices", slow="qwen35moe|nemotron-h|lfm2moe"),
    Rule("model/test_families.py",  # one of each kind of layer and of expert
         slow="glm4moe|gpt-oss|gemma4-e2b|deepseek2-v3|qwen35moe|granitehybrid|lfm2moe|olmo3|mistral3"),
    Rule("model/test_forward.py::TestAgainstLlamaCpp::test_quantised",
         "Q4_K_M", "F16|Q8_0|IQ4_XS|Q4_0|BF16|Q2_K|Q3_K_M|Q5_K_M"),
    Rule("engine/test_llm.py::test_generated_is_streamed_is_recomputed",
         "llama3|qwen2moe", "gemma3|glm4|qwen3|phi3-longrope|chatglm"),
    Rule("engine/test_packed_params.py::test_a_file_and_all_vectors",
         "llama3|qwen2moe|gemma3|phi2|glm4moe", ".*"),
    Rule("engine/test_llm.py::test_the_prompt_may_be_read_in_chunks", slow=".*"),
    Rule("engine/test_llm.py::TestPlacement::test_two_devices_give_the_same_text", slow=".*"),
    Rule("model/test_latent_attention.py::test_the_absorbed_form", "20-120-3-.*", ".*"),
    Rule("gguf/test_quantise_file.py::test_every_mix", "F16|Q4_0|Q8_0|Q4_K_M|Q3_K_L|IQ4_XS|Q6_K", ".*"),
    # folders of all families: those with a change of their own quick
    Rule("convert/test_conversion_plan.py::test_files_of_the_original_converter",
         "(llama3|mixtral|qwen2moe|qwen3|qwen3vlmoe|qwen35-mtp|qwen3next|gemma3-4b|gemma4|phi3-128k|glm4|deepseek3)-f32|"
         "(granite|granitehybrid|gpt-oss-mxfp4|qwen3-fp8|hunyuan-dense|lfm2|nemotron_h|cohere2)-f32|llama-q8_0", ".*"),
    # devices: one family quick, some in CI
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_every_variant",
         slow="llama|qwen2moe|gemma2|glm4|nemotron_h|lfm2moe"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_quantised_weights_where", slow="qwen3"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_quantised_weights", slow="llama|qwen3moe"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_where_xla_multiplies", slow="llama"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_widths_that_do_not_divide_where"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_widths", slow="three blocks for two|experts"),
    Rule("engine/test_tensor_parallel.py::test_a_step_exchanges_twice", slow=".*"),
    Rule("engine/test_tensor_parallel.py::test_every_call_gives_the_same_elsewhere"),
    Rule("engine/test_tensor_parallel.py::test_every_call_gives_the_same", slow=".*"),
    Rule("engine/test_tensor_parallel.py::test_so_do_recurrent_layers", slow="lfm2moe"),
    Rule("engine/test_tensor_parallel.py::test_so_does_one_of_other_models", slow="mixtral"),
    Rule("engine/test_tensor_parallel.py::test_the_built_in_model_writes_the_same", slow="2"),
    Rule("engine/test_programs.py::test_texts_together", "penalties", ".*"),
    Rule("engine/test_programs.py::test_of_other_models", slow="gemma2"),
    Rule("engine/test_programs.py::test_over_devices", slow="penalties"),
    Rule("engine/test_slot_executor.py::test_of_other_layers", slow="gemma3|qwen35"),
    Rule("engine/test_slot_executor.py::test_over_devices", slow="mesh-llama|pipeline-qwen35"),
    Rule("engine/test_slot_executor.py", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_of_every_sampler", "penalties", "greedy|dry|mirostat 2"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_of_every_kind_of_model", "gemma2", ".*"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_over_several_devices", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_of_the_built_in_model", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_where_the_cache_grows", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestEnds::test_full_context", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestEnds::test_context_shift", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestReport::test_on_the_command_line", slow=".*"),
    Rule("engine/test_recurrent_sessions.py::test_a_text_goes_on", "50-40", ".*"),
    Rule("engine/test_text_cache.py::test_another_text", ".*(window|from a checkpoint)", ".*"),
    Rule("engine/test_remote_backend.py::TestSameNumbers::test_of_every_sampler", "greedy|penalties", "dry"),
    Rule("engine/test_remote_backend.py::test_a_worker_that_is_killed", slow="its process-0|the command-1"),
    Rule("engine/test_executable_cache.py::test_what_jax_has_compiled_before", slow=".*"),
    Rule("engine/test_executable_cache.py::test_a_new_process", slow=".*"),
    # kernels: the processor's own instruction set quick, the generic one (seconds a kernel) for some types in CI
    Rule("kernels/test_cpu_attention.py::TestEveryKernel",
         "(20-12-8|64-64-3|64-96-2)-(?!.*(generic|avx512)).*", ".*f16-f16.*|.*q8_0-f32.*|(?!.*generic).*"),
    Rule("kernels/test_cpu_attention.py::test_concurrent_threads", slow=".*"),
    Rule("kernels/test_weight.py::TestEveryType", f"(?!.*{LOW_BITS}).*|.*IQ2_S.*", ".*"),
    Rule("kernels/test_weight.py::test_any_bytes", f"(?!{LOW_BITS}).*", ".*"),
    Rule("kernels/test_weight.py::test_any_finite_block", "NVFP4|TQ1_0|IQ1_M|IQ2_S", ".*"),
    Rule("kernels/test_mapped_weight.py::TestInsideJit::test_an_expert", "Q4_K|IQ2_S", ".*"),
    Rule("kernels/test_cpu_matmul.py::test_any_finite_block", "(IQ2_S|NVFP4)-(?!generic).*",
         "(?!.*generic).*|(IQ2_XXS|TQ1_0).*"),
    Rule("kernels/test_cpu_matmul.py::test_any_bytes", "(Q4_0|Q5_1|Q3_K|Q4_K|IQ4_XS)-(?!generic).*",
         "(?!.*generic).*|(IQ2_XXS|TQ1_0).*"),
    Rule("kernels/test_grouped_products.py::TestEveryType", ".*(Q6_K|F16).*", ".*"),
    Rule("kernels/test_cpu_matmul.py::TestEveryKernel",
         "(?!.*generic).*-(Q4_0|Q8_0|Q4_K|F16)-.*",
         "(?!.*generic).*|.*(Q4_0|[^B]F16|Q6_K|IQ2_XXS|TQ1_0).*"),
    Rule("kernels/test_cpu_matmul.py::test_all_shapes", "Q4_0-(?!generic).*", "(?!.*generic).*|.*(Q6_K|F16).*"),
    Rule("kernels/test_cpu_matmul.py::test_zeros", "(?!.*generic).*", ".*"),
    Rule("kernels/test_cpu_matmul.py::TestQuantisedActivations", "(?!.*generic).*", ".*"),
    Rule("kernels/test_cpu_matmul.py", "(?!.*generic).*|generic", ".*(Q4_0|[^B]F16|Q6_K).*"),
    Rule("kernels/test_registry.py::test_a_whole_model_on_other_kernels", slow=".*"),
    Rule("parallel/test_shards.py::test_types_without_kernels", slow="Q8_0|F16"),
    Rule("parallel/test_shards.py::test_experts", slow=".*"),
    Rule("parallel/test_shards.py::test_vectors", slow=".*"),
    Rule("parallel/test_worker_group.py::test_(slow_start|leader_waits|what_strangers|consecutive)", slow=".*"),
    Rule("parallel/test_worker_group.py::TestStopped::test_a_worker_is_named", "0", ".*"),
    Rule("parallel/test_worker_group.py::TestStopped::test_a_(worker_that|leader)", slow=".*"),
    Rule("parallel/test_shards.py::test_types", "Q8_0", "F16|Q4_K|F32|NVFP4|IQ2_XXS"),
    Rule("sampling/test_sharded_sampling.py::test_the_same_tokens_on_two_devices", slow="all of these"),
    Rule("sampling/test_sharded_sampling.py::test_the_same_tokens", "all of these", "all later stages|greedy|dry"),
    Rule("sampling/test_sharded_sampling.py::test_values_of_top_k", slow=".*"),
    Rule("sampling/test_sharded_sampling.py::test_equal_logits", slow=".*"),
    Rule("sampling/test_sharded_sampling.py::test_all_values_of_top_k"),
    # measuring
    Rule("measure/test_kl_divergence.py::test_(llama_cpp_finds_the_same|tiles_are_nearer)", slow=".*"),
    Rule("measure/test_latency.py::test_a_fresh_process", slow=".*"),
    Rule("test_cpu_quota.py::test_the_pool", slow=".*"),
    Rule("test_env.py::test_(doctor_sees|warns_where|threads_of_a_token)", slow=".*"),
    Rule("server/test_garbage.py", slow=".*"),
    Rule("engine/test_batch_memory.py", slow=".*"),
    Rule("engine/test_batch_engine.py::test_requests_of_mixed_settings", slow=".*"),
    Rule("engine/test_remote_backend.py::test_nothing_piles_up", slow=".*"),
    Rule("engine/grammar/test_gbnf_parser.py::TestHostile::test_many_rules", slow=".*"),
    Rule("cli/test_cli_run.py::test_reader_that_goes_away", slow=".*"),
    Rule("gguf/test_reader.py::test_reference_files", slow=".*"),
    Rule("gguf/test_quantise_file.py::test_files_equal", slow=".*"),
    Rule("kernels/test_weight.py::test_a_quantised_vector", slow=".*"),
    Rule("cli/test_cli_chat.py::test_real_talk", slow=".*"),
    Rule("cli/test_cli_bench.py::test_ours_as_it_really_runs", slow=".*"),
    Rule("lab/test_worker_processes.py::test_gone_when_the_kernel_dies", slow=".*"),
    Rule("lab/test_results_file.py::test_(two_kernels|kernel_that_ends)", slow=".*"),
    Rule("lab/test_lab01.py::test_model_is_of_its_size", slow=".*"),
    Rule("measure/test_perplexity.py::test_passes_equal_whole_windows", "a last pass that is not full", ".*"),
    Rule("measure/test_perplexity.py::test_windows_side_by_side", "gemma2-f32", ".*"),
    Rule("measure/test_roofline.py::test_the_matrix_that_is_timed", "12", ".*"),
    Rule("measure/test_perplexity.py::test_layers_on_two_devices", slow=".*"),
    Rule("measure/test_perplexity.py::test_llama_cpp_finds_the_same", "-128", ".*"),
    Rule("measure/test_multiple_choice.py::test_llama_cpp_finds_the_same", slow=".*"),
    Rule("measure/test_multiple_choice.py::test_endings_are_scored", "hellaswag-32", ".*"),
    Rule("cli/test_cli_perplexity.py::test_tasks", "hellaswag.*", ".*"),
    Rule("cli/test_cli_perplexity.py::test_columns", slow=".*"),
    Rule("cli/test_cli_bench.py::test_several_numbers_of_threads", slow=".*"),
    Rule("lab/test_lab_checks.py::test_many_rows", slow=".*"),
    Rule("lab/test_lab_measurements.py::test_a_setting_runs_in_a_process", slow=".*"),
    Rule("lab/test_worker_processes.py::test_processes_meet", slow=".*"),
    Rule("lab/test_lab01.py::test_dots", slow=".*"),
    Rule("lab/test_lab07.py::test_importance", slow=".*"),
    Rule("lab/test_lab16.py::test_the_chunked_form", slow=".*"),
    Rule("lab/test_lab17.py::test_the_package_is_right", "avx.*", ".*"),
    Rule("lab/test_lab17.py::test_a_crash_stays", slow=".*"),
    Rule("lab/test_lab07.py::test_speeds_by_turns", slow=".*"),
    Rule("lab/test_lab09.py::test_on_eight_devices", slow=".*"),
    Rule("lab/test_lab09.py::test_a_step_of_a_model_sends", slow=".*"),
    # notebooks: one lab quick, all in CI
    Rule("lab/test_notebooks.py::test_learners_notebook_runs_unsolved", "02.*", "0[034].*|12.*"),
    Rule("lab/test_notebooks.py::test_solutions_hold", slow=".*"),
    Rule("lab/test_notebooks.py::test_nbval_bites", slow=".*"),
    Rule("lab/test_chinese_labs.py::test_chinese_notebook_runs_unsolved", slow=".*"),
    Rule("random_models/test_tiny_shapes.py::test_commands",  # one of each kind of layer
         slow="chatglm|llama|gpt-oss|deepseek2|gemma4|qwen35moe|granitehybrid|lfm2moe"),
    Rule("gguf/test_hostile_files.py::test_many_damaged_files"),  # a slice of the fuzzer's is in CI
    Rule("random_models/test_random_models.py::test_vocabularies", "tiny", "llama-3.2-1b|glm-4.7-flash-8l"),
    Rule("tokenizer/test_linear_time.py::test_the_regex_engine",
         slow="default|qwen35|tekken|falcon|deepseek-llm|kimi-k2|whitespace"),
    Rule("random_models/test_random_models.py::test_a_written_file", f"(?!{LOW_BITS}).*|IQ2_M|NVFP4", ".*"),
    Rule("test_data.py::test_resuming", slow=".*"),
    Rule("test_data.py::test_scripts_have_help", "stories.py", ".*"),
    Rule("test_data.py::test_a_few_steps_on_one_batch", slow=".*"),
    Rule("sampling/test_sampling_chain.py::test_mirostat_keeps_the_surprise", slow=".*"),
    Rule("model/test_attention.py::test_attention_is_the_formula", "16-.*", ".*"),
    Rule("model/test_attention.py::test_every_type_is_read", "20.*(F16|Q8_0)", ".*"),
    Rule("model/test_quantised_caches.py::TestLogits::test_of_", slow=".*"),
    Rule("model/test_quantised_caches.py::TestLogits", "q4_0", ".*"),
    Rule("model/test_quantised_caches.py::test_loud", "q4_0", ".*"),
    # matrices of faults: each signal, phase, process, cache and writer in CI, all combinations nightly
    Rule("parallel/test_fault_matrix.py::test_fault",
         slow="SIGKILL-load-worker|SIGSTOP-generation-worker|SIGINT-prompt-leader|SIGKILL-generation-supervisor"),
    Rule("cli/test_end_signals.py::test_at_many_moments", slow="0-15"),
    Rule("test_fault_matrix.py::test_caches", slow=".*-run"),
    Rule("test_fault_matrix.py::test_a_cache_on_a_full_disk", slow="run"),
    Rule("test_fault_matrix.py::test_cold_starts_at_once", slow="run"),
    Rule("test_fault_matrix.py::test_an_output_on_a_full_disk", slow="old file-.*"),
    # every command meets a closed stdout or a broken pipe in CI, those that compute and write meet both
    Rule("cli/test_standard_streams.py::test_a_stdout_that_cannot_be_written",
         ".*-(help|inspect|tokenize)", ">&-.*-(version|doctor|bench)|.*-(run|cli|synth)"),
    Rule("cli/test_standard_streams.py::test_a_broken_pipe",
         "help|inspect|tokenize", "run|cli|synth|raw|json|simple|latency|perplexity|quality"),
    Rule("cli/test_standard_streams.py::test_other_streams", ".*-(help|inspect|tokenize)", ".*-(run|cli|synth)"),
)  # fmt: skip


LONGEST = (  # start first, or one process would run them alone at the end
    "lab/test_notebooks.py::test_solutions_hold",
    "lab/test_browser.py",
    "engine/test_tensor_parallel.py::test_the_built_in_model",
    "fuzz/test_harness.py::test_a_slice",
)


def is_shorter(item: pytest.Item) -> bool:
    """Sort key: False for the longest tests."""
    return not _name(item).startswith(LONGEST)


def _name(item: pytest.Item) -> str:
    return item.nodeid.removeprefix("tests/")


@cache
def rule_of(test: str) -> Rule | None:
    """The first rule that names a test.

    test: the node's id without the case.
    """
    return next((rule for rule in RULES if re.match(rule.test, test)), None)


def assign(item: pytest.Item) -> None:
    """Mark a test by the first rule that names it."""
    rule = rule_of(_name(item).partition("[")[0])
    if rule is None:
        return
    case = item.callspec.id if hasattr(item, "callspec") else ""
    if re.fullmatch(rule.quick, case):
        return
    item.add_marker(pytest.mark.slow if re.fullmatch(rule.slow, case) else pytest.mark.nightly)
