// A small Llama with random weights in one block type, and steps for it.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "model.h"

namespace herd::test {

constexpr int64_t kVocab = 101;

// Rows of random blocks as a file holds them; scales are finite halves (or exponents) of either sign.
std::vector<uint8_t> random_rows(BlockType type, int64_t rows, int64_t cols, std::mt19937& random);

// Layers of grouped-query attention and SwiGLU. Weights depend on the seed alone.
std::unique_ptr<Model> random_model(std::shared_ptr<ThreadPool> pool, Isa isa, BlockType type, bool kv_half,
                                    uint32_t seed = 1);

// The program of random_model, for a model that holds its weights already.
Program random_program();

// Puts `value` in the place of one of the program's numbers.
void spoil(Program& program, int32_t value, std::mt19937& random);

// Adds an adapter of rank 4 on the first layer's q_proj and returns its id.
int32_t add_random_adapter(Model& model, BlockType type, uint32_t seed);

// The arrays of a step, and the batch over them.
struct Step {
  std::vector<int32_t> token_ids, positions, seq_starts{0}, kv_lens, block_tables, adapters, logit_rows, tap_rows;
  int64_t max_blocks = 8;

  // `ids` at positions from `first` on, in the cache's blocks from `first_block` on. Logits of every row.
  Step& add(const std::vector<int32_t>& ids, int32_t first, int32_t first_block, int32_t adapter = -1);
  Batch batch() const;
};

std::vector<int32_t> some_ids(int64_t count, uint32_t seed);

// The logits of a step, and behind them what its tap kept.
std::vector<float> run(Model& model, const Step& step);

}  // namespace herd::test
