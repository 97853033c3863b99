# What Slicer's packaging reads: every one of these must have been set.
file(WRITE ${CMAKE_BINARY_DIR}/description.txt "")
foreach(name HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${name}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${name} is not set")
  endif()
  file(APPEND ${CMAKE_BINARY_DIR}/description.txt "${name}\t${EXTENSION_${name}}\n")
endforeach()
