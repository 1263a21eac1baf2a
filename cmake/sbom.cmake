# What is inside the wheel, as CycloneDX beside its metadata: dist-info/sboms, the place of PEP 770.
file(SHA256 ${CMAKE_CURRENT_SOURCE_DIR}/cmlr_edge/model/demo/model.onnx CMLR_DEMO_MODEL_SHA256)
if(CMLR_STATIC_CXX_LIBRARY) # else the device's own libstdc++ is used, and nothing of it is inside
  set(CMLR_SBOM_CXX_LIBRARY "
    {
      \"type\": \"library\",
      \"bom-ref\": \"libc++\",
      \"name\": \"libc++\",
      \"version\": \"${CMAKE_CXX_COMPILER_VERSION}\",
      \"description\": \"with libc++abi, libunwind and compiler-rt, linked into cmlr_edge/_native\",
      \"licenses\": [{\"expression\": \"Apache-2.0 WITH LLVM-exception\"}]
    },")
endif()
if(TARGET cmlr_cuda)
  set(CMLR_SBOM_CUDA "
    {
      \"type\": \"library\",
      \"bom-ref\": \"cudart\",
      \"name\": \"NVIDIA CUDA Runtime\",
      \"description\": \"of the nvcc that compiled, linked into cmlr_edge/_cuda and libcmlr_plugin\",
      \"licenses\": [{\"license\": {\"name\": \"NVIDIA CUDA Toolkit EULA\"}}]
    },")
endif()
configure_file(release/sbom.cdx.json.in ${CMAKE_CURRENT_BINARY_DIR}/cmlr-edge.cdx.json @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cmlr-edge.cdx.json
        DESTINATION ${SKBUILD_METADATA_DIR}/sboms)
