// Arrays of Python as the bindings take them: contiguous, on a CPU, never copied, valid until the call returns.
//
// Tensors of torch come by the functions that DLPack 1.3 has for such calls, without one of `__dlpack__`, which is Python;
// whatever else knows DLPack or the buffer protocol comes by nanobind.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <unordered_map>

namespace fieldfit {

template <class T, int N>
class Array {
 public:
  Array() = default;
  Array(T* data, const int64_t* shape) : data_(data) {
    for (int i = 0; i < N; ++i) shape_[i] = static_cast<size_t>(shape[i]);
  }
  size_t shape(int axis) const { return shape_[axis]; }
  size_t size() const {
    size_t n = 1;
    for (size_t s : shape_) n *= s;
    return n;
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  size_t shape_[N] = {};
};

// The head of what a type offers as `__dlpack_c_exchange_api__` (dlpack.h, DLPackExchangeAPI).
struct DlpackExchange {
  uint32_t major, minor;
  void *before, *allocate, *export_managed, *import_managed;
  int (*view)(void* object, nanobind::dlpack::dltensor* out);  // of what the object goes on to own; may be null
};

// That of a type, or null. Types are asked once, and kept.
inline const DlpackExchange* dlpack_exchange_of(PyTypeObject* type) {
  static std::unordered_map<PyTypeObject*, const DlpackExchange*> known;  // guarded by the interpreter's lock
  auto at = known.find(type);
  if (at != known.end()) return at->second;
  const DlpackExchange* found = nullptr;
  if (PyObject* capsule = PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__")) {
    found = static_cast<const DlpackExchange*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
    if (found && (found->major != 1 || !found->view)) found = nullptr;
    Py_DECREF(capsule);
  }
  PyErr_Clear();
  Py_INCREF(type);
  return known[type] = found;
}

}  // namespace fieldfit

NAMESPACE_BEGIN(NB_NAMESPACE)
NAMESPACE_BEGIN(detail)

template <class T, int N>
struct type_caster<fieldfit::Array<T, N>> {
  using Slow = ndarray<T, ndim<N>, c_contig, device::cpu>;
  using Fast = fieldfit::Array<T, N>;
  NB_TYPE_CASTER(Fast, make_caster<Slow>::Name)

  template <class Flags>
  bool from_python(handle src, Flags flags, cleanup_list* cleanup) noexcept {
    if (const fieldfit::DlpackExchange* exchange = fieldfit::dlpack_exchange_of(Py_TYPE(src.ptr()))) {
      dlpack::dltensor t;
      if (exchange->view(src.ptr(), &t) != 0) {
        PyErr_Clear();
        return false;
      }
      if (t.dtype != nanobind::dtype<T>() || t.ndim != N || t.device.device_type != device::cpu::value || !contiguous(t)) return false;
      value = {reinterpret_cast<T*>(static_cast<char*>(t.data) + t.byte_offset), t.shape};
      return true;
    }
    make_caster<Slow> slow;
    if (src.is_none() || !slow.from_python(src, static_cast<Flags>(flags & ~static_cast<Flags>(cast_flags::convert)), cleanup)) return false;
    value = {slow.value.data(), slow.value.shape_ptr()};
    return true;
  }

 private:
  static bool contiguous(const dlpack::dltensor& t) {
    int64_t step = 1;
    bool rows = true;
    for (int i = N - 1; i >= 0; --i) {
      if (t.shape[i] == 0) return true;
      rows &= t.shape[i] == 1 || !t.strides || t.strides[i] == step;
      step *= t.shape[i];
    }
    return rows;
  }
};

NAMESPACE_END(detail)
NAMESPACE_END(NB_NAMESPACE)
