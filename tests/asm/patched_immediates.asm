; bits: 64
; native: yes
; expect: rbx=5050 r9=0x1111111111111175 r8=0x40
; Immediates that are patched before each call: whole, in part, from beside the code, and by the block itself.
bits 64
org 0x10000000
    xor ebx, ebx
    mov ecx, 1
again:
    mov [function + 1], ecx
    call function
    add ebx, eax
    inc ecx
    cmp ecx, 100
    jbe again
    mov ecx, 100
bytes:
    mov [wide + 2], cl              ; one byte of eight
    call wide
    mov [beside], cl                ; data on the page of the code
    inc byte [beside]
    dec ecx
    jnz bytes
    mov byte [wide + 2], 0x75
    call wide
    mov ecx, 64
    xor edx, edx
itself:
    mov rsi, ahead + 2
    inc edx
    mov [rsi], edx                  ; the instruction after the next
    nop
ahead:
    mov r8d, 0x12345678
    cmp r8d, ecx
    jne itself
    ; the opcode changes after all: mov becomes xor
    mov dword [function], 0xc3c031
    call function
    add ebx, eax
    hlt

beside: db 0
function:
    mov eax, 0
    ret
wide:
    mov r9, 0x1111111111111111
    ret
