#include "random_model.h"

#include <cstring>

#include "float16.h"

namespace herd::test {
namespace {

constexpr int64_t kLayers = 2, kHeads = 4, kKvHeads = 2, kHeadDim = 16, kDim = kHeads * kHeadDim, kFfn = 96, kExperts = 3;
constexpr Limits kLimits{.max_context = 128, .max_seqs = 4, .max_batch_tokens = 128, .max_logit_rows = 128};

// Byte offsets of a block's halves; -1: none.
struct HalfScales {
  int64_t first, second;
};

HalfScales half_scales(BlockType type) {
  switch (type) {
    case BlockType::q4_1:
    case BlockType::q5_1:
    case BlockType::q4_k:
    case BlockType::q5_k: return {0, 2};
    case BlockType::q2_k: return {80, 82};
    case BlockType::q3_k: return {108, -1};
    case BlockType::q6_k: return {208, -1};
    case BlockType::mxfp4: return {-1, -1};
    default: return {0, -1};
  }
}

float normal(std::mt19937& random) {
  float sum = 0;  // near enough to a normal distribution, and the same on every machine
  for (int i = 0; i < 4; ++i) sum += static_cast<float>(random() >> 8) * 0x1p-24f - 0.5f;
  return sum * 1.7f;
}

void put_half(uint8_t* block, int64_t at, float value) {
  if (at < 0) return;
  const uint16_t bits = f32_to_f16(value);
  std::memcpy(block + at, &bits, 2);
}

void put_float(BlockType type, uint8_t* value_bytes, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint16_t half = type == BlockType::f16 ? f32_to_f16(value) : static_cast<uint16_t>(bits >> 16);
  type == BlockType::f32 ? std::memcpy(value_bytes, &bits, 4) : std::memcpy(value_bytes, &half, 2);
}

PackedWeight random_matrix(Model& model, BlockType type, int64_t rows, int64_t cols, std::mt19937& random) {
  const BlockShape shape = block_shape(type);
  const std::vector<uint8_t> data = random_rows(type, rows, cols, random);
  return model.pack(type, rows, cols, data.data(), static_cast<size_t>(cols / shape.values * shape.bytes));
}

// Numbers a model's weights in the order of the program, and makes them where there is a model.
class Maker {
 public:
  Maker() = default;
  Maker(Model& model, BlockType type, uint32_t seed) : model_(&model), type_(type), random_(seed) {}

  int32_t matrix(int64_t rows, int64_t cols) {
    if (model_ != nullptr) model_->add_matrix(random_matrix(*model_, type_, rows, cols, random_));
    return matrices_++;
  }
  int32_t norm(int64_t width = kDim) {
    std::vector<float> values(static_cast<size_t>(width));
    for (float& value : values) value = 0.2f + 0.05f * normal(random_);
    if (model_ != nullptr) model_->add_vector(std::move(values));
    return vectors_++;
  }

 private:
  Model* model_ = nullptr;
  BlockType type_ = BlockType::f32;
  std::mt19937 random_;
  int32_t matrices_ = 0, vectors_ = 0;
};

Operation operation(OpKind kind, std::vector<int32_t> reads, std::vector<int32_t> writes, std::vector<int32_t> weights = {}) {
  const size_t maps = kind == OpKind::linear ? weights.size() : 0;
  return {.kind = kind, .reads = std::move(reads), .writes = std::move(writes), .weights = std::move(weights),
          .biases = std::vector<int32_t>(maps, kNone), .residuals = std::vector<int32_t>(maps, kNone),
          .rope = kNone, .layer = 0, .tap = 0, .parts = {}};
}

// The buffers of the program below.
enum : int32_t { kStream, kNormed, kQueries, kKeys, kValues, kGate, kUp, kGated, kPicked, kLogits, kRouter, kMixed };

// A mixture of experts beside the layer, capped: what families beside Llama need.
void add_experts(Program& program, Maker& make) {
  program.operations.push_back(operation(OpKind::layer_norm, {kStream}, {kNormed}, {make.norm()}));
  program.operations.back().biases = {make.norm()};
  program.operations.push_back(operation(OpKind::linear, {kNormed}, {kRouter}, {make.matrix(kExperts, kDim)}));
  std::vector<int32_t> maps;
  for (int64_t expert = 0; expert < kExperts; ++expert)
    for (const auto& [rows, cols] : {std::pair{kFfn, kDim}, {kFfn, kDim}, {kDim, kFfn}}) maps.push_back(make.matrix(rows, cols));
  program.operations.push_back(operation(OpKind::experts, {kNormed, kRouter}, {kMixed}, maps));
  program.operations.back().value = 2.0f;
  program.operations.push_back(operation(OpKind::softcap, {kMixed}, {kMixed}));
  program.operations.back().value = 4.0f;
  program.operations.push_back(operation(OpKind::add, {kStream, kMixed}, {kStream}));
}

void add_layer(Program& program, Maker& make, int32_t layer) {
  const auto add = [&](Operation op) -> Operation& {
    op.layer = layer;
    return program.operations.emplace_back(std::move(op));
  };
  add(operation(OpKind::rms_norm, {kStream}, {kNormed}, {make.norm()}));
  const int32_t q = make.matrix(kDim, kDim), k = make.matrix(kKvHeads * kHeadDim, kDim), v = make.matrix(kKvHeads * kHeadDim, kDim);
  add(operation(OpKind::linear, {kNormed}, {kQueries, kKeys, kValues}, {q, k, v}));
  add(operation(OpKind::store_kv, {kKeys, kValues}, {})).rope = 0;
  if (layer > 0) add(operation(OpKind::head_norm, {kQueries}, {kQueries}, {make.norm(kHeadDim)}));
  Operation& attention = add(operation(OpKind::attention, {kQueries}, {kNormed}));
  attention.rope = layer > 0 ? kNone : 0;
  attention.window = layer > 0 ? 20 : 0;
  add(operation(OpKind::linear, {kNormed}, {kStream}, {make.matrix(kDim, kDim)})).residuals = {kStream};
  add(operation(OpKind::rms_norm, {kStream}, {kNormed}, {make.norm()}));
  const int32_t gate = make.matrix(kFfn, kDim), up = make.matrix(kFfn, kDim);
  add(operation(OpKind::linear, {kNormed}, {kGate, kUp}, {gate, up}));
  add(operation(layer > 0 ? OpKind::gelu_mul : OpKind::silu_mul, {kGate, kUp}, {kGated}));
  add(operation(OpKind::linear, {kGated}, {kStream}, {make.matrix(kDim, kFfn)})).residuals = {kStream};
}

Program program_over(Maker& make) {
  Program program;
  for (const int64_t width : {kDim, kDim, kDim, kKvHeads * kHeadDim, kKvHeads * kHeadDim, kFfn, kFfn, kFfn})
    program.buffers.push_back({width, false, true, true});
  program.buffers.push_back({kDim, true, true, true});
  program.buffers.push_back({kVocab, true, true, false});
  program.buffers.push_back({kExperts, false, true, false});
  program.buffers.push_back({kDim, false, true, false});
  program.operations.push_back(operation(OpKind::embed, {}, {kStream}, {make.matrix(kVocab, kDim)}));
  for (int32_t layer = 0; layer < kLayers; ++layer) add_layer(program, make, layer);
  add_experts(program, make);
  program.operations.push_back(operation(OpKind::keep, {kStream}, {}));
  program.operations.push_back(operation(OpKind::rms_norm, {kStream}, {kQueries}, {make.norm()}));
  program.operations.push_back(operation(OpKind::pick_rows, {kQueries}, {kPicked}));
  program.operations.push_back(operation(OpKind::linear, {kPicked}, {kLogits}, {make.matrix(kVocab, kDim)}));
  program.output = kLogits;
  return program;
}

}  // namespace

std::vector<uint8_t> random_rows(BlockType type, int64_t rows, int64_t cols, std::mt19937& random) {
  const BlockShape shape = block_shape(type);
  std::vector<uint8_t> data(static_cast<size_t>(rows * cols / shape.values * shape.bytes));
  const HalfScales scales = half_scales(type);
  for (uint8_t* block = data.data(); block != data.data() + data.size(); block += shape.bytes) {
    if (is_float(type)) {
      put_float(type, block, normal(random));
      continue;
    }
    for (int64_t i = 0; i < shape.bytes; ++i) block[i] = static_cast<uint8_t>(random());
    put_half(block, scales.first, normal(random));
    put_half(block, scales.second, normal(random));
    if (type == BlockType::mxfp4) block[0] = static_cast<uint8_t>(110 + random() % 30);
  }
  return data;
}

std::unique_ptr<Model> random_model(std::shared_ptr<ThreadPool> pool, Isa isa, BlockType type, bool kv_half, uint32_t seed) {
  std::vector<double> frequencies(kHeadDim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = 1.0 / static_cast<double>(i + 1);
  const ModelShape shape{kLayers, kHeads, kKvHeads, kHeadDim, kHeadDim, kVocab, 1e-5f};
  auto model = std::make_unique<Model>(std::move(pool), isa, shape, kLimits, kv_half, 32,
                                       std::vector<RotaryTable>{{frequencies, 1.0}});
  Maker make(*model, type, seed);
  model->add_program(program_over(make));
  return model;
}

Program random_program() {
  Maker make;
  return program_over(make);
}

void spoil(Program& program, int32_t value, std::mt19937& random) {
  if (random() % 5 == 0) {
    BufferSpec& buffer = program.buffers[random() % program.buffers.size()];
    switch (random() % 4) {
      case 0: buffer.width = value; break;
      case 1: buffer.per_logit_row = !buffer.per_logit_row; break;
      case 2: buffer.f32 = !buffer.f32; break;
      default: buffer.q8 = !buffer.q8;
    }
    return;
  }
  Operation& op = program.operations[random() % program.operations.size()];
  std::vector<int32_t>* const lists[] = {&op.reads, &op.writes, &op.weights, &op.biases, &op.residuals};
  std::vector<int32_t>& list = *lists[random() % std::size(lists)];
  switch (random() % 6) {
    case 0: op.layer = value; break;
    case 1: op.tap = value; break;
    case 2: program.output = value; break;
    case 3: op.kind = static_cast<OpKind>(random() % kOpKinds); break;
    case 4: list.push_back(value); break;
    default: list.empty() ? list.push_back(value) : void(list[random() % list.size()] = value % 16);
  }
}

int32_t add_random_adapter(Model& model, BlockType type, uint32_t seed) {
  std::mt19937 random(seed);
  // The first layer's q_proj is the second matrix, after the embedding's.
  LowRankAdapter adapter{0.5f, {}};
  adapter.pairs.insert({1, LowRankPair{random_matrix(model, type, 4, kDim, random), random_matrix(model, BlockType::f32, kDim, 4, random)}});
  return model.add_adapter(std::move(adapter));
}

Step& Step::add(const std::vector<int32_t>& ids, int32_t first, int32_t first_block, int32_t adapter) {
  for (size_t i = 0; i < ids.size(); ++i) {
    logit_rows.push_back(static_cast<int32_t>(token_ids.size()));
    tap_rows.push_back(static_cast<int32_t>(token_ids.size()));
    token_ids.push_back(ids[i]);
    positions.push_back(first + static_cast<int32_t>(i));
  }
  seq_starts.push_back(static_cast<int32_t>(token_ids.size()));
  kv_lens.push_back(first + static_cast<int32_t>(ids.size()));
  for (int32_t i = 0; i < max_blocks; ++i) block_tables.push_back(first_block + i);
  adapters.push_back(adapter);
  return *this;
}

Batch Step::batch() const {
  return {token_ids, positions, seq_starts, kv_lens, block_tables, max_blocks, adapters, logit_rows, {tap_rows}};
}

std::vector<int32_t> some_ids(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % kVocab);
  return ids;
}

std::vector<float> run(Model& model, const Step& step) {
  model.forward(0, step.batch());
  std::vector<float> seen(model.logits(0), model.logits(0) + model.num_logit_rows() * kVocab);
  const std::vector<float>& kept = model.kept(0);
  seen.insert(seen.end(), kept.begin(), kept.end());
  return seen;
}

}  // namespace herd::test
