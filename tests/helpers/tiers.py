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
SOME_STATES = "gpt-oss|deepseek2-v3|qwen35moe|lfm2moe"
LOW_BITS = "(NVFP4|TQ|IQ1_|IQ2_|IQ3_)"  # the types that are only read

RULES = (
    # nightly: long cases whose kind has a shorter one in CI
    Rule("sampling/test_llama_cpp_texts.py::test_other_chains",
         slow="default-4|penalties-1|xtc-1|typical-wide-2|mirostat2-low-3|dry-2|dynatemp-wide-2|nsigma-2|plain-5|order-7"),
    Rule("sampling/test_shared_chain.py::test_with_other_options", slow="(?!long).*"),
    Rule("engine/test_batch_engine.py::test_500_requests"),
    Rule("engine/test_batch_engine.py::test_recurrent_texts_go_on", slow="lfm2.*"),
    Rule("engine/test_remote_backend.py::test_a_(worker|leader)_that_is_killed"),
    Rule("engine/test_llm.py::TestPlacement::test_two_devices_give_the_same_text"),
    Rule("engine/test_programs.py::test_over_devices"),
    Rule("measure/test_kl_divergence.py::test_rounding_noise"),
    Rule("cli/test_cli_bench.py::test_several_numbers_of_threads"),
    Rule("test_fault_matrix.py::test_cold_starts_at_once"),
    Rule("course/test_course_grade.py::TestHostile::test_code",
         slow="fork bomb|memory in steps|a large result|network|solutions|exit|class"),
    Rule("course/test_course_grade.py::TestHostile::test_traced", slow=".*"),
    Rule("lab/test_worker_processes.py::test_gone_when_the_kernel_dies", slow="kill"),
    Rule("engine/test_accelerators.py::TestLowering::test_every_program_of_a_text",
         "llama-(prefill|generate|hidden|nll|start)-1|llama-generate-8|(qwen3moe|qwen35)-generate-1", ".*"),
    Rule("engine/test_accelerators.py::TestLowering::test_every_other_program", "llama-(decode|draw)_slots", ".*"),
    Rule("engine/test_accelerators.py::test_sharded_programs", "F32-llama", ".*"),
    Rule("lab/test_lab15.py::test_batches_are_measured"),
    Rule("lab/test_kernels_at_once.py::test_two_kernels"),
    Rule("course/test_course_grade.py::TestTheClass::test_marks_of_two_labs"),
    Rule("course/test_course_grade.py::TestExercises::test_solutions_get_full_marks", slow="0[35]|14"),
    Rule("parallel/test_worker_group.py::test_death_during_a_collective", slow="0"),
    Rule("parallel/test_network_faults.py::test_cut_link"),
    Rule("engine/test_remote_backend.py::test_each_process_holds_its_share"),
    Rule("engine/test_quantised_sessions.py::test_two_devices_compute_the_same"),
    Rule("lab/test_browser.py::test_(figures_need_no_network|sweep_is_drawn)"),
    Rule("lab/test_lab_models.py::test_the_same_bytes"),
    Rule("test_fault_matrix.py::test_caches", slow="(empty|foreign)-run"),
    Rule("engine/grammar/test_call_grammars.py::test_every_form",
         slow=".*(START_ACTION|DSML.*0|TOOL_CALLS.*0|<tool_call>0|tool_call_start.*0|seed).*"),
    Rule("model/test_forward.py::TestEveryVariant::test_cache_changes_nothing", "llama3|gemma2",
         f"qwen2moe|gemma3|phi3-longrope|glm4moe|{KINDS_OF_LAYERS}"),
    # long cases of one kind each, whose kind has a shorter case in the quick run
    Rule("engine/test_accelerators.py::TestLowering::test_the_processors_own", slow=".*"),
    Rule("lab/test_cell_times.py::test_a_made_up_notebook", slow=".*"),
    Rule("engine/test_batch_engine.py::test_(full_context|likeliest_tokens|a_text_does_not_depend)", slow=".*"),
    Rule("engine/test_draft_models.py::TestExecutor", slow=".*"),
    Rule("engine/test_draft_models.py::TestOneText::test_the_same_bits", slow=".*"),
    Rule("engine/test_finite.py::test_generation", "options0", "options3"),
    Rule("engine/test_finite.py::test_(logits_and_trace|multiple_choice)", slow=".*"),
    Rule("engine/test_scheduler.py::test_drafts_change_no_text", slow=".*"),
    Rule("engine/test_llm.py::TestAgainstLlamaCpp", slow=".*"),
    Rule("engine/test_llm.py::TestSession::test_the_cache_grows", slow=".*"),
    Rule("engine/test_llm.py::TestSampling::test_penalties_see", slow=".*"),
    Rule("engine/test_embeddings.py::test_vectors_of_llama_server", slow=".*"),
    Rule("engine/test_recurrent_sessions.py::test_padded_chunks", slow=".*"),
    Rule("engine/test_remote_backend.py::TestSameNumbers::test_of_sessions_that_grow", slow=".*"),
    Rule("engine/test_text_cache.py::test_windows_do_not_grow", slow=".*"),
    Rule("engine/test_constrained.py::test_without_an_end_token", slow=".*"),
    Rule("engine/test_model_files.py::test_hub", slow=".*"),
    Rule("engine/grammar/test_gbnf_parser.py::TestHostile::test_(bounded|work_is_counted)", "text[0-5]", ".*"),
    Rule("engine/grammar/test_json_schema.py::TestLargeSchemas", slow=".*"),
    Rule("engine/grammar/test_masks.py::test_masks_are_those", slow=".*"),
    Rule("engine/test_memory_budget.py::TestWeights::test_locked", "False", ".*"),
    Rule("kernels/test_cpu_attention.py::test_any_number_of_threads", slow=".*"),
    Rule("kernels/test_cpu_matmul.py::TestRowsOfABatch", "Q6_K-(?!generic|avx-vnni).*", "(?!.*generic).*|.*Q5_K.*"),
    Rule("kernels/test_cpu_matmul.py::test_codes_are_as_small", "Q4_0|Q4_K|Q6_K|IQ4_XS|F16", ".*"),
    Rule("kernels/test_grouped_products.py::test_any_number_of_threads", slow=".*"),
    Rule("kernels/test_mapped_weight.py::TestInsideJit::test_several_matrices", slow=".*"),
    Rule("kernels/test_cpu_delta_rule.py::test_padded_tokens", slow=".*"),
    Rule("kernels/test_simd.py::TestOnEveryInstructionSet::test_dot_of_narrow_codes", "(?!.*generic).*", ".*"),
    Rule("model/test_attention.py::test_rows_of_a_cache", slow=".*"),
    Rule("model/test_attention.py::test_memory_does_not_grow", slow=".*"),
    Rule("model/test_latent_attention.py::test_any_split", slow=".*"),
    Rule("model/test_forward.py::test_layers_can_run", slow=".*"),
    Rule("model/test_delta_net.py::TestMetadata::test_impossible_flags", slow=".*"),
    Rule("model/test_read_config.py::test_the_document", slow=".*"),
    Rule("model/test_read_config.py::TestConfig::test_exaone_has", slow=".*"),
    Rule("parallel/test_worker_group.py::test_killed_leader", slow=".*"),
    Rule("sampling/test_sampling_chain.py::test_chain_under_vmap", slow=".*"),
    Rule("sampling/test_sampling_chain.py::test_(a_search_keeps|draws_follow)", ".*sampling1", ".*"),
    Rule("sampling/test_mersenne_twister.py::test_where_the_list", slow=".*"),
    Rule("cli/test_cli_run.py::test_a_device_that_is_not_there", slow=".*"),
    Rule("cli/test_cli_parser.py::test_any_text", slow=".*"),
    Rule("cli/test_cli_bench.py::test_(whole_processes|compare_with)", slow=".*"),
    Rule("cli/test_cli_batched_bench.py::test_all_texts_step", slow=".*"),
    Rule("cli/test_cli_worker.py::test_it_waits", "15-", ".*"),
    Rule("cli/test_end_signals.py::test_during_imports", "(1|31|61|96)-.*", "(160|220|400_0|580|400_1|640)-.*"),
    Rule("cli/test_cli_doctor.py::test_doctor_examines", slow=".*"),
    Rule("gguf/test_hostile_files.py::test_damaged_files", slow=".*"),
    Rule("gguf/test_quantise_file.py::test_importances", slow=".*"),
    Rule("measure/test_latency.py::test_command", slow=".*"),
    Rule("measure/test_latency.py::test_the_cache_weighs", slow=".*"),
    Rule("measure/test_perplexity.py::test_(logits_are_never|strided)", slow=".*"),
    Rule("measure/test_relevance.py::test_(hidden_states|likelihoods)", slow=".*"),
    Rule("measure/test_text_quality.py::test_(json_has|default_scorer)", slow=".*"),
    Rule("measure/test_imatrix.py::test_sums", "gemma2", ".*"),
    Rule("measure/test_collective_traffic.py::test_formula_agrees", slow=".*"),
    Rule("measure/test_roofline.py::test_the_matrix_that_is_timed", slow="12"),
    Rule("measure/test_multiple_choice.py::test_choices_are_scored", slow=".*"),
    Rule("lab/test_check_tables.py::test_every_hint", "(?!17|06-nll|05-layer).*", ".*"),
    Rule("lab/test_code_strings.py::test_code_differs", "(00|02|04).*", ".*"),
    Rule("lab/test_chinese_labs.py::test_in_step", slow=".*"),
    Rule("lab/test_chinese_labs.py::test_cells_of", "0[04]", ".*"),
    Rule("lab/test_language_build.py::test_outputs", slow=".*"),
    Rule("lab/test_notebooks.py::test_builder_stops", slow=".*"),
    Rule("lab/test_lab06.py::test_(mistakes_are_named|scored_logits)", "(?!item32).*", ".*"),
    Rule("lab/test_lab10.py::test_(log_likelihoods|the_solution_scores)", slow=".*"),
    Rule("lab/test_lab17.py::test_(attempts|right_answers_pass)", slow=".*"),
    Rule("lab/test_lab17.py::test_mistakes_are_named", "(?!item(13|5|6|8)-).*", ".*"),
    Rule("lab/test_lab_checks.py::test_(greedy_rows|next_token_names)", slow=".*"),
    Rule("lab/test_lab_measurements.py::test_(times_are_times|passes_agree)", slow=".*"),
    Rule("lab/test_worker_processes.py::test_one_that_does_not", slow=".*"),
    Rule("test_data.py::test_(the_engine_computes|held_out_text)", slow=".*"),
    Rule("test_env.py::test_in_time", slow=".*"),
    Rule("test_atomic_file.py::test_a_full_disk", "(?!quantised).*", ".*"),
    # families: one of each feature (rope style, fused tensors, head norms, post norms, window, experts, factors)
    Rule("model/test_forward.py::TestEveryVariant::test_forward_is_the_formulas",
         "llama3|chatglm|gemma2|glm4moe|gpt-oss", ".*"),
    Rule("model/test_forward.py::TestEveryVariant::test_rounded_caches", "llama3",
         f"gemma2|qwen3|gemma3|{KINDS_OF_LAYERS}"),
    Rule("model/test_forward.py::TestEveryVariant::test_rows_of_a_batch", "llama3|qwen2moe",
         f"gemma3|{KINDS_OF_LAYERS}"),
    Rule("model/test_forward.py::TestEveryVariant", "llama3|gemma2", ".*"),
    Rule("model/test_forward.py::TestAgainstLlamaCpp::test_architecture", "llama3|qwen2moe", ".*"),
    Rule("model/test_low_bit_models.py::test_logits",
         slow="(IQ1_M|IQ2_M|IQ3_XS|TQ1_0|NVFP4)-kernels|(IQ2_M|NVFP4)-xla"),
    Rule("model/test_low_bit_models.py::test_scales", slow=".*"),
    Rule("model/test_families.py::test_whole", "glm4moe|olmo3",
         f"{ONE_OF_EACH_STATE}|mistral3|cohere2|nemotron-h|.*flash"),
    Rule("model/test_families.py::test_(after_another_text|on_two_devices)", slow="gpt-oss|qwen35moe|lfm2moe"),
    Rule("model/test_families.py::test_in_chunks", "cohere2",
         f"{SOME_STATES}|glm4moe|nemotron-h"),
    Rule("model/test_families.py::test_going_back_on_two_devices", slow="qwen35moe|nemotron-h|lfm2moe"),
    Rule("model/test_families.py",  # one of each kind of layer and of expert
         slow=f"{SOME_STATES}|glm4moe"),
    Rule("model/test_forward.py::TestAgainstLlamaCpp::test_quantised",
         "Q4_K_M", "F16|Q8_0|IQ4_XS|Q4_0|BF16|Q2_K|Q3_K_M|Q5_K_M"),
    Rule("engine/test_llm.py::test_generated_is_streamed_is_recomputed",
         "llama3", "qwen2moe|gemma3|chatglm"),
    Rule("engine/test_packed_params.py::test_a_file_and_all_vectors",
         "llama3|qwen2moe|gemma3|phi2|glm4moe", ".*"),
    Rule("engine/test_llm.py::test_the_prompt_may_be_read_in_chunks", slow=".*"),
    Rule("model/test_latent_attention.py::test_the_absorbed_form", slow=".*"),
    Rule("gguf/test_quantise_file.py::test_every_mix", "F16|Q8_0|Q4_K_M", ".*"),
    # folders of all families: those with a change of their own quick
    Rule("convert/test_conversion_plan.py::test_files_of_the_original_converter",
         "(llama3|mixtral|qwen2moe|qwen3|qwen3vlmoe|qwen35-mtp|qwen3next|gemma3-4b|gemma4|phi3-128k|glm4|deepseek3)-f32|"
         "(granite|granitehybrid|gpt-oss-mxfp4|qwen3-fp8|hunyuan-dense|lfm2|nemotron_h|cohere2)-f32|llama-q8_0", ".*"),
    # devices: one family quick, some in CI
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_every_variant",
         slow="llama|gemma2"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_quantised_weights_where", slow="qwen3"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_quantised_weights", slow="llama|qwen3moe"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_where_xla_multiplies", slow="llama"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_widths_that_do_not_divide_where"),
    Rule("engine/test_tensor_parallel.py::TestSameNumbers::test_of_widths", slow="three blocks for two|experts"),
    Rule("engine/test_tensor_parallel.py::test_a_step_exchanges_twice", slow=".*"),
    Rule("engine/test_tensor_parallel.py::test_every_call_gives_the_same_elsewhere"),
    Rule("engine/test_tensor_parallel.py::test_every_call_gives_the_same", slow=".*"),
    Rule("engine/test_tensor_parallel.py::test_so_do_recurrent_layers"),
    Rule("engine/test_tensor_parallel.py::test_so_does_one_of_other_models", slow="mixtral"),
    Rule("engine/test_tensor_parallel.py::test_the_built_in_model_writes_the_same"),
    Rule("engine/test_programs.py::test_texts_together", slow="penalties|greedy.*"),
    Rule("engine/test_programs.py::test_of_other_models", slow="gemma2"),
    Rule("engine/test_slot_executor.py::test_of_other_layers", slow="gemma3|qwen35"),
    Rule("engine/test_slot_executor.py::test_over_devices", slow="mesh-llama|pipeline-qwen35"),
    Rule("engine/test_slot_executor.py", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_of_every_sampler", slow="penalties|greedy|dry|mirostat 2"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_of_every_kind_of_model", "gemma2", "mixtral"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_over_several_devices", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_of_the_built_in_model", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestSameText::test_where_the_cache_grows", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestEnds::test_full_context", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestEnds::test_context_shift", slow=".*"),
    Rule("engine/test_prompt_lookup.py::TestReport::test_on_the_command_line", slow=".*"),
    Rule("engine/test_recurrent_sessions.py::test_a_text_goes_on", slow=".*"),
    Rule("engine/test_text_cache.py::test_another_text", ".*from a checkpoint", ".*"),
    Rule("engine/test_remote_backend.py::TestSameNumbers::test_of_every_sampler", "greedy", "penalties|dry"),
    Rule("engine/test_executable_cache.py::test_what_jax_has_compiled_before", slow=".*"),
    Rule("engine/test_executable_cache.py::test_a_new_process", slow=".*"),
    # kernels: the processor's own instruction set quick, the generic one (seconds a kernel) for some types in CI
    Rule("kernels/test_cpu_attention.py::TestEveryKernel",
         "(20-12-8|64-64-3)-(?!.*(generic|avx512|avx-vnni)).*",
         "(?!.*generic).*(f16-f16|q8_0-f32|q4_0-q5_1).*|.*20-12-8.*f16-f16.*generic.*"),
    Rule("kernels/test_cpu_attention.py::test_concurrent_threads", slow=".*"),
    Rule("kernels/test_weight.py::TestEveryType", ".*(Q4_0|Q8_0|Q4_K|Q6_K|IQ4_XS|F16|IQ2_S).*", ".*"),
    Rule("kernels/test_weight.py::test_any_bytes", f"(?!{LOW_BITS}).*", ".*"),
    Rule("kernels/test_weight.py::test_any_finite_block", "NVFP4|TQ1_0|IQ1_M|IQ2_S", ".*"),
    Rule("kernels/test_mapped_weight.py::TestInsideJit::test_an_expert", "Q4_K", ".*"),
    Rule("kernels/test_cpu_matmul.py::test_any_finite_block", "(IQ2_S|NVFP4)-(?!generic).*",
         "(?!.*generic).*|(IQ2_XXS|TQ1_0).*"),
    Rule("kernels/test_cpu_matmul.py::test_any_bytes", "(Q4_0|Q5_1|Q3_K|Q4_K|IQ4_XS)-(?!generic).*",
         "(?!.*generic).*|(IQ2_XXS|TQ1_0).*"),
    Rule("kernels/test_grouped_products.py::TestEveryType", ".*(Q6_K|F16).*", ".*"),
    Rule("kernels/test_cpu_matmul.py::TestEveryKernel",
         ".*-(Q4_0|Q4_K)-avx2|.*-(Q8_0|F16)-(?!generic|avx2|avx-vnni).*",
         ".*-avx2.*|.*(Q4_0|[^B]F16|Q6_K|IQ2_XXS|TQ1_0).*"),
    Rule("kernels/test_cpu_matmul.py::test_all_shapes",
         "Q4_0-(?!generic|avx-vnni).*", "(?!.*generic).*|.*(Q6_K|F16).*"),
    Rule("kernels/test_cpu_matmul.py::test_zeros", "(?!.*(generic|avx-vnni)).*", ".*"),
    Rule("kernels/test_cpu_matmul.py::TestQuantisedActivations", slow="(?!.*generic).*"),
    Rule("kernels/test_cpu_matmul.py", "(?!.*generic).*|generic", ".*(Q4_0|[^B]F16|Q6_K).*"),
    Rule("kernels/test_registry.py::test_a_whole_model_on_other_kernels", slow="avx2"),
    Rule("parallel/test_shards.py::test_types_without_kernels", slow="Q8_0|F16"),
    Rule("parallel/test_shards.py::test_experts", slow=".*"),
    Rule("parallel/test_shards.py::test_vectors", slow=".*"),
    Rule("parallel/test_worker_group.py::test_(slow_start|leader_waits|what_strangers|consecutive)", slow=".*"),
    Rule("parallel/test_worker_group.py::TestStopped::test_a_worker_is_named", slow="0"),
    Rule("parallel/test_worker_group.py::TestStopped::test_a_(worker_that|leader)", slow=".*"),
    Rule("parallel/test_shards.py::test_types", "Q8_0", "F16|Q4_K|F32|NVFP4|IQ2_XXS"),
    Rule("sampling/test_sharded_sampling.py::test_the_same_tokens_on_two_devices", slow="all of these"),
    Rule("sampling/test_sharded_sampling.py::test_the_same_tokens", slow="all of these|all later stages|greedy|dry"),
    Rule("sampling/test_sharded_sampling.py::test_values_of_top_k", slow=".*"),
    Rule("sampling/test_sharded_sampling.py::test_equal_logits", slow=".*"),
    Rule("sampling/test_sharded_sampling.py::test_all_values_of_top_k"),
    # checks for accelerators, without one: in CI of one type, the other types nightly
    Rule("gpu/test_device_numbers.py", ".*accelerator.*", "processor|processor-Q4_K_M(-highest)?"),
    Rule("engine/test_accelerator_splits.py::test_partial_offload", "llama", ".*"),
    Rule("engine/test_accelerator_splits.py::test_layers_over_devices", "2", "4"),
    Rule("engine/test_accelerator_splits.py::test_collectives_of_tensor_parallel", "4", "2"),
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
    Rule("lab/test_results_file.py::test_(two_kernels|kernel_that_ends)", slow=".*"),
    Rule("lab/test_lab01.py::test_model_is_of_its_size", slow=".*"),
    Rule("measure/test_perplexity.py::test_passes_equal_whole_windows", slow="a last pass that is not full"),
    Rule("measure/test_perplexity.py::test_windows_side_by_side", slow="gemma2-f32"),
    Rule("measure/test_perplexity.py::test_layers_on_two_devices", slow=".*"),
    Rule("measure/test_perplexity.py::test_llama_cpp_finds_the_same", "-128", "-512|-Q4_0-128|-F16-256|-Q8_0-512"),
    Rule("measure/test_multiple_choice.py::test_llama_cpp_finds_the_same", slow=".*"),
    Rule("measure/test_multiple_choice.py::test_endings_are_scored", slow="hellaswag-32"),
    Rule("cli/test_cli_perplexity.py::test_tasks", slow="hellaswag.*"),
    Rule("cli/test_cli_perplexity.py::test_columns", slow=".*"),
    Rule("lab/test_lab_checks.py::test_many_rows", slow=".*"),
    Rule("lab/test_lab_measurements.py::test_a_setting_runs_in_a_process", slow=".*"),
    Rule("lab/test_worker_processes.py::test_processes_meet", slow=".*"),
    Rule("lab/test_lab01.py::test_dots", slow=".*"),
    Rule("lab/test_lab07.py::test_importance", slow=".*"),
    Rule("lab/test_lab16.py::test_the_chunked_form"),
    Rule("lab/test_lab17.py::test_the_package_is_right", "avx2", ".*"),
    Rule("lab/test_lab17.py::test_a_crash_stays", slow=".*"),
    Rule("lab/test_lab07.py::test_speeds_by_turns", slow=".*"),
    Rule("lab/test_lab09.py::test_on_eight_devices"),
    Rule("lab/test_lab09.py::test_a_step_of_a_model_sends"),
    # the instructor's kit: one class of one lab quick
    Rule("course/test_course_grade.py::TestExercises::test_chinese_notebooks", slow="02"),
    Rule("course/test_course_grade.py::TestHostile", slow=".*"),
    # notebooks: one lab quick, all in CI
    Rule("lab/test_notebooks.py::test_learners_notebook_runs_unsolved", slow="0[03].*"),
    Rule("lab/test_notebooks.py::test_solutions_hold", slow="0[04].*|14.*"),
    Rule("lab/test_notebooks.py::test_nbval_bites", slow=".*"),
    Rule("lab/test_chinese_labs.py::test_chinese_notebook_runs_unsolved", slow=".*"),
    # the real graders; every check with other seeds
    Rule("course/test_course_build.py::test_(nbgraders|otters)_marks", slow=".*"),
    Rule("course/test_required_checks.py::test_solutions_pass_with_any_seed", "(0[0-4]|13|16)-.*", ".*"),
    Rule("random_models/test_tiny_shapes.py::test_commands",  # one of each kind of layer
         slow="chatglm|gpt-oss|deepseek2|qwen35moe"),
    Rule("gguf/test_hostile_files.py::test_many_damaged_files"),  # a slice of the fuzzer's is in CI
    Rule("random_models/test_random_models.py::test_vocabularies", "tiny", "llama-3.2-1b|glm-4.7-flash-8l"),
    Rule("tokenizer/test_linear_time.py::test_the_regex_engine",
         slow="default|qwen35|tekken|falcon|deepseek-llm|kimi-k2|whitespace"),
    Rule("random_models/test_random_models.py::test_a_written_file", f"(?!{LOW_BITS}).*|IQ2_M|NVFP4", ".*"),
    Rule("test_data.py::test_resuming", slow=".*"),
    Rule("test_data.py::test_scripts_have_help", "stories.py", ".*"),
    Rule("test_data.py::test_a_few_steps_on_one_batch", slow=".*"),
    Rule("sampling/test_sampling_chain.py::test_mirostat_keeps_the_surprise", slow=".*"),
    Rule("model/test_attention.py::test_attention_is_the_formula", "16-starts1-.*", ".*"),
    Rule("model/test_attention.py::test_every_type_is_read", "20.*Q8_0", "20.*(F16|Q4_0)|1-None-.*F16"),
    Rule("model/test_quantised_caches.py::TestLogits::test_of_", slow=".*"),
    Rule("model/test_quantised_caches.py::TestLogits", slow=".*"),
    Rule("model/test_quantised_caches.py::test_loud", "q4_0", ".*"),
    # matrices of faults: each signal, phase, process, cache and writer in CI, all combinations nightly
    Rule("parallel/test_fault_matrix.py::test_fault",
         slow="SIGKILL-load-worker|SIGINT-prompt-leader"),
    Rule("cli/test_end_signals.py::test_at_many_moments"),
    Rule("test_fault_matrix.py::test_a_cache_on_a_full_disk", slow="run"),
    Rule("test_fault_matrix.py::test_an_output_on_a_full_disk", slow="old file-(quantize|synth)"),
    # every command meets a closed stdout or a broken pipe in CI, those that compute and write meet both
    Rule("cli/test_standard_streams.py::test_a_stdout_that_cannot_be_written",
         ".*-(help|tokenize)", ">&-.*-(version|doctor|bench)|.*-(run|synth)"),
    Rule("cli/test_standard_streams.py::test_a_broken_pipe",
         "help|tokenize", "inspect|run|synth|json"),
    Rule("cli/test_standard_streams.py::test_other_streams", ".*-(help|tokenize)", "2>&--run|<&--cli|.*-synth"),
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
